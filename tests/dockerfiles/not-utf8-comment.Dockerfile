# José
FROM a
MAINTAINER José <j@example.org>
RUN a \
 # é
 b
