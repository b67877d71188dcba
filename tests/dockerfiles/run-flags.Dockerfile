FROM a
RUN --network=none --security=insecure --device=vendor.com/x=y,required a --b
RUN --network=host -- --c
RUN --mount=type=secret,id=aws,target=/root/.aws,required=true,mode=0400,uid=1000,gid=1000 b
RUN --mount=type=secret,id=token,env=TOKEN b
RUN --mount=type=ssh b
RUN --mount=type=ssh,id=x,required,mode=0600 b
RUN --mount=type=tmpfs,target=/tmp,size=1.5GiB b
RUN --mount=type=cache,target=/c,sharing=locked,id=i,from=base,source=/s,mode=0755,uid=1,gid=2,ro b
RUN --mount=target=. --mount=type=bind,from=x,src=y,dst=/z,rw b
RUN --mount='type=bind,"target=/a,b"' b
RUN --mount=type=cache,target=${HOME}/.cache,sharing=${MODE} b
