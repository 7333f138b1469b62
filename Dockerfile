# The service alone: no trainer, no feature platform, no data frames. Build: docker build -t nextbest .
# Python 3.12: every locked package has a wheel for it or is plain Python; the compiler is for what is ours and written in C.
FROM python:3.12-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
RUN python -m venv /opt/nextbest
COPY requirements/roots.txt requirements/serving.txt requirements/
RUN /opt/nextbest/bin/pip install --requirement requirements/roots.txt \
 && /opt/nextbest/bin/pip install --require-hashes --requirement requirements/serving.txt
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY service service
COPY features features
RUN /opt/nextbest/bin/pip install --no-deps . \
 && cd / && /opt/nextbest/bin/python -c 'from features import _rows; from service.bundles import _leaves; from service.decision import _contacts, _figures'

FROM python:3.12-slim
# A numeric user, so that an orchestrator can verify that it is not root.
RUN useradd --uid 10001 --user-group --create-home nextbest && install -d -o 10001 -g 10001 /data
COPY --from=build /opt/nextbest /opt/nextbest
ENV PATH=/opt/nextbest/bin:$PATH PYTHONUNBUFFERED=1 NEXTBEST_HOME=/data NEXTBEST_PORT=8080
WORKDIR /data
VOLUME /data
USER 10001:10001
EXPOSE 8080
# By HTTPS where that is spoken; the certificate is others' to judge.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["python", "-c", "import os, ssl, urllib.request as r; \
scheme = 'https' if os.environ.get('NEXTBEST_TLS_CERTIFICATE') else 'http'; \
r.urlopen(scheme + '://127.0.0.1:' + os.environ['NEXTBEST_PORT'] + '/ready', timeout=2, context=ssl._create_unverified_context())"]
# It listens to others, so it starts only with keys: docker run --rm -v data:/data nextbest nextbest keys make shop
CMD ["nextbest", "serve", "--host", "0.0.0.0"]
