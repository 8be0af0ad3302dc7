"""A process that is busy for ever, as a library may be with a damaged file."""

import threading

if __name__ == "__main__":
    threading.Event().wait()
