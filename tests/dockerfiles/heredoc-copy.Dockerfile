FROM a
COPY <<robots.txt <<"humans.txt" file /srv/
User-agent: $x
robots.txt
$nobody
humans.txt
ADD --chmod=0644 <<-EOF /x
	y
	EOF
COPY ["<<EOF", "/x"]
COPY "<<EOF" /x
