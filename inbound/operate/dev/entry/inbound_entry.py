"""What the local Lambda loads in place of a Python function: it runs the function from the folder where its author edits it.

So modules, data and packages beside it are found as they are, and tracebacks name the real file. Where that folder is not (a Lambda
in a container), it takes the copy that came along.
"""

import importlib
import json
import os
import sys
from pathlib import Path

_here = Path(__file__).resolve().parent
_source = json.loads((_here / "inbound_entry.json").read_text(encoding="utf-8"))
_folder = Path(_source["folder"])
if not (_folder / _source["file"]).is_file():
    _folder = _here
sys.path.insert(0, str(_folder))
os.chdir(_folder)
os.environ["LAMBDA_TASK_ROOT"] = str(_folder)

handler = getattr(importlib.import_module(Path(_source["file"]).stem), _source["handler"])
