FROM a
RUN a &&
    apt-get install b
