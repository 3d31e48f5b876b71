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
  command = [sys.executable, '-m', 'rahf.main', *flags]
  training = None
  asked = False

  def stop(number, frame) -> None:
    nonlocal asked
    asked = True
    # As SIGINT, which rahf.main takes for the same request. Where the system has sent
    # SIGTERM to all processes, a second one would end it at once.
    if training is None:
      sys.exit(STOPPED)
    training.send_signal(signal.SIGINT)

  signal.signal(signal.SIGTERM, stop)
  # A shell starts what it puts in the background with SIGINT ignored, and so would
  # this start the training. Ctrl-C goes to both already.
  signal.signal(signal.SIGINT, lambda *_: None)
  training = subprocess.Popen(command)
  status = training.wait()
  # It may be asked before it listens.
  unheard = asked and status == -signal.SIGINT
  if unheard or (status == 0 and not finished(workdir)):
    return STOPPED
  return status if status >= 0 else 128 - status


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
