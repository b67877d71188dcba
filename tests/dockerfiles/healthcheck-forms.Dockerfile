FROM a
HEALTHCHECK NONE
HEALTHCHECK none
HEALTHCHECK CMD curl -f http://localhost/ || exit 1
HEALTHCHECK --interval=5m --timeout=3s --start-period=500ms --start-interval=0s --retries=0 CMD   ["a", "b"]
healthcheck cmd x
