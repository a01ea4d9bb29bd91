# One image per component, targets manager, monitor and agent:
#
#   docker build --target agent -t knitter-agent .
#   ./build.sh images                               # all three with buildah; makes its base with debootstrap, needs no registry
#
# Wheels in ./wheels are used where they are (build.sh images makes them); else the pinned packages come from the package index.
ARG BASE=docker.io/library/debian:12-slim

FROM ${BASE} AS base
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 ca-certificates \
 && rm -rf /var/lib/apt/lists/*
ENV PATH=/usr/local/lib/knitter/bin:$PATH PYTHONUNBUFFERED=1

FROM base AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv patchelf \
 && rm -rf /var/lib/apt/lists/*
COPY . /src
WORKDIR /src
RUN python3 -m venv /usr/local/lib/knitter \
 && if [ -d wheels ]; then pip install --no-cache-dir --no-index --find-links wheels knitter; \
    else pip install --no-cache-dir -c deploy/constraints.txt .; fi \
 && pip uninstall -q -y pip setuptools
# the plugin, and the interpreter that it brings to nodes that have none
RUN interpreter=$(/usr/bin/python3 deploy/host_python.py '/opt/knitter/python-{id}') \
 && python deploy/install_plugin.py --python "$interpreter" /opt/knitter/knitter-cni \
 && CNI_COMMAND=VERSION /opt/knitter/knitter-cni

FROM base AS daemon
COPY --from=build /usr/local/lib/knitter /usr/local/lib/knitter
RUN echo 'knitter:x:65532:' >> /etc/group \
 && echo 'knitter:x:65532:65532:Knitter:/var/lib/knitter:/usr/sbin/nologin' >> /etc/passwd \
 && install -d -o 65532 -g 65532 -m 0750 /var/lib/knitter

FROM daemon AS manager
USER 65532:65532
VOLUME /var/lib/knitter
EXPOSE 7470
ENTRYPOINT ["knitter-manager"]
CMD ["--config", "/etc/knitter/manager.json"]

FROM daemon AS monitor
USER 65532:65532
EXPOSE 7471
ENTRYPOINT ["knitter-monitor"]
CMD ["--config", "/etc/knitter/monitor.json"]

# Runs as root with CAP_NET_ADMIN and CAP_SYS_ADMIN, /run/knitter, /run/netns and /var/lib/knitter from the node.
# Before it, as an init container: knitter-cni-install, with the node's root at /host.
FROM daemon AS agent
RUN apt-get update \
 && apt-get install -y --no-install-recommends nftables \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/knitter /opt/knitter
COPY deploy/install_host.py deploy/install_plugin.py /usr/local/lib/knitter/install/
RUN printf '#!/bin/sh\nexec /usr/bin/python3 -Es /usr/local/lib/knitter/install/install_host.py "$@"\n' > /usr/local/bin/knitter-cni-install \
 && chmod 0755 /usr/local/bin/knitter-cni-install
ENTRYPOINT ["knitter-agent"]
CMD ["--config", "/etc/knitter/agent.json"]
