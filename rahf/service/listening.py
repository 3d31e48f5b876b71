"""Opens the socket of a server."""

import ipaddress
import socket

from rahf.errors import InputError


def listen(host: str, port: int) -> socket.socket:
  """Returns a listening socket.

  Args:
    port: 0 for any free one.

  Raises:
    InputError: the address is unknown or in use.
  """
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  try:
    return socket.create_server((host, port), family=family, backlog=1024)
  except (OSError, OverflowError) as error:
    raise InputError(
      f'cannot listen on {host} port {port} ({error}); choose another --host or --port'
    ) from None


def is_loopback(listener: socket.socket) -> bool:
  """Returns whether only this machine can connect."""
  return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def address_of(listener: socket.socket) -> str:
  """Returns the URL of a listening socket."""
  host, port, *_ = listener.getsockname()
  return f'http://[{host}]:{port}' if ':' in host else f'http://{host}:{port}'
