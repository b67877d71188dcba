FROM a
RUN b \
 # nothing more