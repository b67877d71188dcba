FROM a
RUN --mount=type=chache,target=/x b
