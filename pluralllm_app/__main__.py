"""`python -m pluralllm_app` is the command `pluralllm`."""

from pluralllm_app.cli.main import main

if __name__ == "__main__":
    main()
