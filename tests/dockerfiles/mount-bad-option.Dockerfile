FROM a
RUN --mount=type=cache,tagret=/x b
