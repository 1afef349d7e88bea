# The image for cluster.yaml and jobs/rayjob.yaml: Ray and Python as pinned, this package with what it was tested with.
#
#   docker build --tag REGISTRY/nst-batch:0.1.0-ray2.60.0-py311 . && docker push REGISTRY/nst-batch:0.1.0-ray2.60.0-py311
FROM rayproject/ray:2.60.0-py311

# torch's wheels bring CUDA; the driver comes from the host.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    RAY_USAGE_STATS_ENABLED=0

COPY --chown=ray . /opt/nst-batch
RUN python -m pip install --no-cache-dir --constraint /opt/nst-batch/constraints.txt '/opt/nst-batch[s3]'

WORKDIR /home/ray
