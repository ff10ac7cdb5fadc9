# The image of every Airflow service in docker-compose.yaml. The slim base holds Airflow alone:
# everything else is pinned by us, one resolution with requirements.txt.
FROM apache/airflow:slim-3.3.2-python3.11

USER root
# A dump needs a client that is not older than the server, so the newest major release comes from
# PostgreSQL's own archive. A physical restore recovers with a server of the source's major version.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends postgresql-common \
    && /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y \
    && echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf \
    && apt-get install --yes --no-install-recommends postgresql-15 postgresql-18 \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/*
# A restore of Redis loads the backup into a server of the same version first.
COPY --from=redis:7.2.5-bookworm /usr/local/bin/redis-cli /usr/local/bin/redis-server \
    /usr/local/bin/redis-check-rdb /usr/local/bin/
# A new volume takes over owner and mode of the directory it is mounted on.
RUN install -d -m 0700 -o airflow -g root /var/spool/neuroca-backup

USER airflow
COPY config/compose/requirements.txt /tmp/requirements.txt
RUN pip install --no-cache-dir --requirement /tmp/requirements.txt && pip check
