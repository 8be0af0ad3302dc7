"""What libraries warn of is no error of the user's, whatever PYTHONWARNINGS says; imported first.

With PYTHONWARNINGS=error, as in somebody's CI, typer could not even be imported.
"""

import os
import sys
import warnings

if any(option.startswith("error") for option in sys.warnoptions):
    warnings.simplefilter("ignore")
    del sys.warnoptions[:]  # which processes that are started would be given
    os.environ.pop("PYTHONWARNINGS", None)
