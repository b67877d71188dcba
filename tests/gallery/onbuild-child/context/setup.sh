#!/bin/sh
echo "$APP_NAME is set up by $(id -un)" >state
