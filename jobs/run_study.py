"""The entry point of a Ray job: `nst-batch run` on the cluster that the job was submitted to.

    ray job submit --address http://HEAD:8265 --working-dir . -- \\
        python jobs/run_study.py week7_content_layers --content /shared/photos --style /shared/paintings \\
        --out /shared/runs/w7

Its arguments are those of `nst-batch run`. It prints one JSON object per line, ends with the exit code of `run`,
and resumes when it is submitted again. `nst-batch submit` does the same and brings its own copy of the package;
this script is for clusters whose image has it, or that are given the source tree as above.
"""

from __future__ import annotations

import sys

from nst_batch.cli.program import main

if __name__ == "__main__":
    sys.argv[1:] = ["run", "--log-json", *sys.argv[1:]]
    main()
