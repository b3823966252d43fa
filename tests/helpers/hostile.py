"""Text that tries to be markup and to control a terminal."""

HOSTILE = "</script><img src=x onerror=alert(1)>\x1b[31m & \u202e"
