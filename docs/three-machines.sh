#!/bin/sh
# Three machines on one computer: a server, and the groups North and East, each with a file of
# answers of its own, from the file to the report. With the app's virtual environment activated:
#
#     docs/three-machines.sh DIR
#
# DIR is made, with a directory for each machine: DIR/server, DIR/north and DIR/east. Whatever a
# machine does, it does in its own one. As root, on Linux, machines also have users and networks of
# their own, and cannot see the others' files, as far as the system lets us: machines.sh says how,
# and the first line that is printed says what holds. What travels between machines is copied by this
# script, and that is all: questions and invitation to the groups, a request from each to the server.
set -eu
. "$(dirname "$0")/machines.sh"
port=${PORT:-9443}
place=$(mkdir -p "${1:?give the directory to make}" && cd "$1" && pwd -P)
machines "$place" server north east

# Each group has its own answers: percentages of 40 questions, as a survey institute may have them.
answers() { # FACTOR
    awk -v factor="$1" 'BEGIN {
        print "question_id,question,option,share"
        for (q = 1; q <= 40; q++) {
            yes = 2000 + (q * factor * 97) % 5500 # in hundredths of a percent
            perhaps = 300 + (q * 71) % 1300
            text = "q" q ",Should rule " q " of the town be kept?"
            printf "%s,Yes,%.2f\n", text, yes / 100
            printf "%s,Perhaps,%.2f\n", text, perhaps / 100
            printf "%s,No,%.2f\n", text, (10000 - yes - perhaps) / 100
        }
    }'
}
answers 13 > "$place/north/answers.csv"
answers 17 > "$place/east/answers.csv"
own north
own east

# The server's operator has the questions, and makes the federation.
cut -d , -f 1-3 "$place/north/answers.csv" > "$place/server/questions.csv" # it is no secret
own server
on server pluralllm questionnaire questions.csv --out questions
on server pluralllm deploy init federation --server "$(address server)" --port "$port" \
    --questionnaire questions

# By e-mail: questions and invitation to the groups.
for group in north east; do
    cp -r "$place/server/questions" "$place/server/federation/invitation.json" "$place/$group"
    own $group
done

# Each group makes its site from its own file, and its node with a key of its own.
on north pluralllm site create questions --group North --file answers.csv --out site
on north pluralllm deploy join invitation.json --site site --out node
on east pluralllm site create questions --group East --file answers.csv --out site
on east pluralllm deploy join invitation.json --site site --out node

# By e-mail: the requests. By telephone: the fingerprint of each key, for --fingerprint of `admit`.
for group in north east; do
    cp "$place/$group/node/request.json" "$place/server/$group.json"
    own server
    on server pluralllm deploy admit federation $group.json
done

# Start the SuperLink and the nodes, and train.
on server federation/server/start.sh > "$place/server/superlink.log" 2>&1 &
until on server pluralllm deploy register federation; do sleep 2; done
for group in north east; do
    on $group node/start.sh > "$place/$group/node.log" 2>&1 &
done
until on server pluralllm deploy status federation; do sleep 2; done
on server pluralllm deploy run federation --out runs/first \
    -c 'rounds=3 context-max=12 target-max=12 evaluation-context=10'
on server pluralllm report runs/first
