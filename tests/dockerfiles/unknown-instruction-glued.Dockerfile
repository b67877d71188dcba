FROM a
RUN["a"]
