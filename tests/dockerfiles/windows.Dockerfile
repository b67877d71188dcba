# escape=`
FROM mcr.microsoft.com/windows/servercore:ltsc2022
SHELL ["powershell", "-Command", "$ErrorActionPreference = 'Stop';"]
COPY testfile.txt c:\\
RUN dir c:\
WORKDIR C:\app\
RUN Invoke-WebRequest -Uri https://example.org/x.zip -OutFile x.zip; `
    Expand-Archive x.zip; `
    # a comment
    Remove-Item x.zip
ENV A="say `"hi`"" B=c:\x` y
