"""Download published weights into the cache."""
