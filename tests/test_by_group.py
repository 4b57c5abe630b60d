"""The benchmark's numbers by group of faces."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks/by_group.py"


def test_groups_are_read_from_the_names_and_the_worse_served_are_named(tmp_path):
    def face(key, identity):
        scores = {"psnr_db": 20.0, "gradient_energy_ratio": 0.5}
        columns = {
            "input": {**scores, "identity_distance": 0.4},
            "ours": {**scores, "identity_distance": identity},
        }
        return {"key": key, "columns": columns}

    faces = [face("a-x-0000", 0.2), face("a-x-0001", 0.4), face("b-y-0002", 0.6)]
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"main": "ours", "parts": [{"name": "medium", "scores": faces}]}))
    done = subprocess.run([sys.executable, SCRIPT, report], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    # The mean is 0.4: the first group lies 25 % below it, the second 50 % above.
    assert lines[2] == "| a-x | 2 | 20.00 | 0.50 | 0.400 | 0.300 | -25% |"
    assert lines[3] == "| b-y | 1 | 20.00 | 0.50 | 0.400 | 0.600 | +50% |"
    assert lines[-1] == "Mean identity distance 0.400; more than 15% above it: b-y (+50%, 1 faces)."
