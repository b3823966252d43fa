"""``sdabench study``: run studies, which are declared beforehand, and show their decisions."""
