"""The only room that imports Ray: the connection, the loop that dispatches batches, retry rules, workers, jobs.

May import `transfer` and `inputs`, which its workers use, and the leaves; knows neither `study` nor `store`. The
worker itself (`worker`, `pictures`) and the rules about deaths (`retries`) import no Ray, and nothing else imports
torch. Callers import its modules where they use them, so that nothing loads Ray before it is needed.
"""
