#!/bin/sh
# Made by 'ckpt ci init'. Brings this clone up to date, carries the policy out, pushes the ledger, and tells alerts.
# It ends with 0 if it is done, or there was nothing to do, or another one is at work; with 50 if a person has to look first;
# with 1 if there are alerts; with anything else if it failed.
set -u
cd "$(dirname "$0")/.." && cd %%WHERE%% || exit 10
export CKPT_NO_HOOKS=1 # nobody works here: no checkpoint has to be put into the workspace

branch=$(git symbolic-ref --quiet --short HEAD) || {
  echo "no branch is checked out, with which the ledger could be pushed: nothing was done" >&2
  exit 10
}

update() { # a branch that follows none has nothing to bring here
  git rev-parse --quiet --verify '@{upstream}' > /dev/null 2>&1 || return 0
  git pull --quiet --ff-only || exit 30 # what git ends with means something else here
}

update
status=0
ckpt policy apply --exit-code || status=$?
case "$status" in
  0 | 3) ;; # nothing to do, or done
  11) echo "another one is at work" && exit 0 ;;
  *) exit "$status" ;;
esac

update
ckpt push "$branch" || exit 30 # others read in the ledger what was condemned; what one night could not push, the next one does

ckpt alerts > /dev/null # 'apply' has told them: this ends with 1 if there are some
