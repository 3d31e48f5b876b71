"""Trains, and says by its exit status how that ended.

  python launch/remote/attempt.py --workdir=DIR FLAG…

The flags are those of rahf.main. 0: the run is finished. 42: it was stopped before
that; the same command goes on. 2: a mistake, as rahf.main says. Others: a crash.
"""

import argparse
import signal
import subprocess
import sys

from finished import finished

# XPK restarts a workload that ends with it.
STOPPED = 42


def main(flags: list[str]) -> int:
  parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  parser.add_argument('--workdir', required=True)
  workdir = parser.parse_known_args(flags)[0].workdir
  training = subprocess.Popen([sys.executable, '-m', 'rahf.main', *flags])
  # SIGTERM is passed on as SIGINT, which rahf.main takes for the same request. Where
  # the system has sent SIGTERM to all processes, a second one would end it at once.
  signal.signal(signal.SIGTERM, lambda *_: training.send_signal(signal.SIGINT))
  signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C goes to both already.
  status = training.wait()
  if status == 0 and not finished(workdir):
    return STOPPED
  return status if status >= 0 else 128 - status


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
