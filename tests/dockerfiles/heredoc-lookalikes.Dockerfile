FROM a
RUN echo a<<b
RUN echo "<<EOF" '<<EOF' \<<EOF
RUN cat <<< "$x"
RUN cat <<<$x
RUN echo $((1<<3)) $(( 1 << 3 )) ${x:-"<<EOF"}
RUN <<
RUN << 
RUN cat <<''
RUN echo it's <<EOF
ENV a <<EOF
CMD cat <<EOF
RUN ["<<EOF"]
