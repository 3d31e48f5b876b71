"""Compares evaluated runs in the paper's tables 1 to 4, with confidence intervals.

python -m rahf.compare DIR [DIR …]
"""

import sys

from rahf.evaluation.compare_command import main

if __name__ == '__main__':
  sys.exit(main())
