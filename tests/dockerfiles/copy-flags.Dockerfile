FROM a
COPY --chown=1:2 --chmod=u=rwX,go=rX --link --parents --exclude=*.md --exclude='b c' --from=0 x/./y z /d/
COPY --link=false --parents=TRUE x y
ADD --keep-git-dir=true --checksum=sha256:00 --unpack=false --link --chown=x --chmod=0755 --exclude=a https://example.org/a.git#main /b
ADD a.tar.gz git@example.org:x/y.git /c
COPY a\ b "c" $D ${E} f*[0-9]? ./
