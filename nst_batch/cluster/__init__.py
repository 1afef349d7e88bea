"""The only room that imports Ray: the connection, the loop that dispatches batches, the rules about deaths, jobs.

May import `transfer` and `inputs`, which its workers use, and the leaves; knows neither `study` nor `store`. The
worker itself (`worker`) and the rules about deaths (`retries`) import no Ray. `run` uses it by module, so that
nothing loads Ray or torch before it is needed.
"""
