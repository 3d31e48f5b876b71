"""Trains, and reports in its exit status how training ended.

  python launch/remote/attempt.py --workdir=DIR FLAG…

The flags are those of rahf.main. 0: the run is finished. 42: it was stopped before
that; run the same command to continue. 2: a mistake, as in rahf.main. Others: a crash.
"""

import argparse
import signal
import subprocess
import sys

from finished import finished

# XPK restarts a workload that ends with this status.
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
    # Forwarded as SIGINT, which rahf.main treats the same. If the system has sent
    # SIGTERM to all processes, a second one would kill it immediately.
    if training is None:
      sys.exit(STOPPED)
    training.send_signal(signal.SIGINT)

  signal.signal(signal.SIGTERM, stop)
  # Shells start background processes with SIGINT ignored, which training would inherit.
  # Ctrl-C reaches both processes anyway.
  signal.signal(signal.SIGINT, lambda *_: None)
  training = subprocess.Popen(command)
  status = training.wait()
  # The signal may arrive before training has installed its handler.
  unheard = asked and status == -signal.SIGINT
  if unheard or (status == 0 and not finished(workdir)):
    return STOPPED
  return status if status >= 0 else 128 - status


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
