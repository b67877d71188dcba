FROM a
RUN echo \\
RUN echo \\\
RUN echo "\\"
RUN echo a\ \
 b
