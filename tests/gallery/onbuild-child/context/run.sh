#!/bin/sh
cat state
