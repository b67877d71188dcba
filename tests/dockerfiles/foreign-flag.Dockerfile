FROM a
COPY \
  --link --mount=type=cache,target=/x b c
