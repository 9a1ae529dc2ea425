"""Has the Celery sample send a message for each user whose id comes from standard input."""

import json
import sys

sys.path.insert(0, ".")  # the sample's folder

from celery_worker import send_message

for user in json.load(sys.stdin):
    send_message.delay(user, sys.argv[1], "Hello")
