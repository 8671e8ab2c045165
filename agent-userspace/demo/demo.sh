#!/bin/sh
# A small agent: it looks around, writes a note, runs programs, and then reads a key that nobody granted it.
set -eu
cd /tmp/bailiwick-demo
ls . >/dev/null
printf 'the agent was here at %s\n' "$(date)" >notes.txt
cat notes.txt
wc -c <notes.txt
echo "Now the agent reads a key that its declaration does not grant."
cat /tmp/bailiwick-demo-secret/id_ed25519
