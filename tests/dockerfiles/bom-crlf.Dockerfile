# escape=`
FROM a
RUN b `
  # comment

  c
RUN <<EOF
d
EOF
COPY x y
ENV A=b  
