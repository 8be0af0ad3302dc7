"""What one client may ask of the service, so that no client keeps it from the others."""

# Connections
CONNECTIONS = 200  # open at once; each may hold a body, so that together they hold 200 MiB at most
CONNECTIONS_EACH = 50  # of one address: a quarter, so that one slow client leaves room for others
HEAD_BYTES = 16 * 1024  # of request line and headers: what other servers take
HEAD_SECONDS = 10  # until a request's headers are there: a phone on a bad line needs 3
BODY_SECONDS = 30  # until its body is there as well
READ_SECONDS = 60  # until a client has read a response: the largest, at 70 KB a second
IDLE_SECONDS = 5  # that a connection stays open after a response, for the next request
END_SECONDS = 5  # that requests have to end once the service is stopped

# Requests
RATE = 100.0  # a second and address in the long run; several questions go into one request
BURST = 200  # of one address at once: a page with its files and a few quick changes
ADDRESSES = 10_000  # whose rates are kept; an address that comes back later starts afresh
BODY_BYTES = 1024 * 1024  # of a request: 3,000 answers by their texts take half of it
RESPONSE_BYTES = 4 * 1024 * 1024  # of a response: 1,000 questions of 20 options take 3 MB
WAITING = 128  # requests that wait for a worker: 200 a second come, and a machine may pause
WAITING_SECONDS = 10  # after which a request is given up, since its client has been, too

# What is in a request
ANSWERS = 3_000  # of a group: more than any survey here has questions
QUESTIONS = 1_000  # to predict, or to choose among
NEW_QUESTIONS = 20  # given with options: they may be new, and are then looked for and embedded
NEW_OPTIONS = 400  # of these together: a sentence embedder on two cores takes 4 s for them
OPTIONS = 1_000  # of a question: more than a survey's has
CHARACTERS = 2_000  # of a question, an option or a description
COMPLETIONS = 2_000  # of a language model to reward: more than a trainer samples in one step
REWARDED = 50  # groups whose rewards are put together
NAME = 200  # characters of an id or of what is searched for
ASKED = 20  # questions that are chosen at once
LISTED = 50  # questions of the survey on one page of the list

# What is kept
GROUPS = 32  # groups whose answers were used last; each takes 1 MB with 50 answers, and at most 20
GROUP_SECONDS = 600  # after which a group that was not asked for again is forgotten
