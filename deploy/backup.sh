#!/bin/sh
# Writes a copy of Redis' append-only file to standard output, as a tar, while the server runs (docs/deploy.md). Knows
# the data directory of `headrace up`, whose secret it adds, and that of a Redis or Valkey 7 or newer.
#
#   (umask 077 && sh deploy/backup.sh DIRECTORY > backup.tar)    # it has all answers, and the secret
#
# Restore: unpack the tar into a new, empty directory, and start the server on that.
#
# The server may replace its files at any moment: it then writes a new manifest and deletes the old files. All files of
# one manifest are therefore linked first, and the links are copied. The last file may end in the middle of a command;
# servers leave such an end out (aof-load-truncated, the default).
set -eu
umask 077

directory=${1:?the data directory, such as .headrace or /var/lib/redis}
manifest=$directory/appendonlydir/appendonly.aof.manifest
if ! [ -r "$manifest" ]; then
  echo "$manifest: not there, or not readable; Redis 7 or newer with appendonly yes writes it" >&2
  exit 1
fi
work=$(mktemp -d "$directory/backup-XXXXXX")  # links need the same file system
trap 'rm -rf "$work"' EXIT

link_files() {
  rm -rf "$work/appendonlydir"
  mkdir "$work/appendonlydir"
  cp "$manifest" "$work/appendonlydir/"
  while read -r _ name _; do
    ln "$directory/appendonlydir/$name" "$work/appendonlydir/" 2>/dev/null || return 1
  done <"$work/appendonlydir/appendonly.aof.manifest"
}

tries=10
until link_files; do  # the manifest was replaced meanwhile
  tries=$((tries - 1))
  if [ "$tries" = 0 ]; then
    echo "$directory: its files cannot be linked; use an account that may write there" >&2
    exit 1
  fi
  sleep 1
done
secret=
if [ -f "$directory/secret" ]; then
  cp "$directory/secret" "$work/"
  secret=secret
fi
# 1: a file grew while it was read. Its copy ends where it ended at first.
tar --warning=no-file-changed -C "$work" -cf - appendonlydir $secret || [ $? = 1 ]
