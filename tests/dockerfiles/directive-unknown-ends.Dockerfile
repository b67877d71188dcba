# unknown=x
# escape=`
FROM a
RUN b \
  c
