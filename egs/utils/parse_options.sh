# shellcheck shell=bash
# Sourced by recipes after their variables are set: "--name value" changes the variable "name", as in Kaldi.
# Accepted are the variables between the lines "# options" and "# end" of the recipe; --help prints its first comment.

accepted=" $(sed -n '/^# options/,/^# end/s/^\([a-z_]*\)=.*/\1/p' "$0" | tr '\n' ' ')"
while [ $# -gt 0 ]; do
  name=${1#--}
  name=${name//-/_}
  if [ "$1" = --help ] || [ "$1" = -h ]; then
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit 0
  elif [[ $1 != --?* || $accepted != *" $name "* ]]; then
    die "$1: is no option; accepted:$(echo " $accepted" | sed 's/  */ /g; s/ \([a-z_]\)/ --\1/g')"
  elif [ $# -lt 2 ]; then
    die "$1: needs a value"
  fi
  printf -v "$name" '%s' "$2"
  shift 2
done
