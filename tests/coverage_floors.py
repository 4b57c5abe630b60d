"""Print line and branch coverage from a `coverage json` file and fail below the floors.

python -m pytest --cov --cov-report=json:out/coverage.json
python tests/coverage_floors.py out/coverage.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

LINES_PERCENT, BRANCHES_PERCENT = 90, 80


def main(report: Path) -> int:
    """Return 1 if either share is below its floor."""
    totals = json.loads(report.read_text())["totals"]
    lines = 100 * totals["covered_lines"] / totals["num_statements"]
    branches = 100 * totals["covered_branches"] / totals["num_branches"]
    sys.stdout.write(f"coverage: lines {lines:.1f} % (floor {LINES_PERCENT}), ")
    sys.stdout.write(f"branches {branches:.1f} % (floor {BRANCHES_PERCENT})\n")
    return int(lines < LINES_PERCENT or branches < BRANCHES_PERCENT)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
