FROM a
COPY a \
  # comment
  b \
  --chown=x \
 c
COPY \
   --froom=x a b
