# syntax=docker/dockerfile:1
# One image for the watcher, the consumers and the gateway; the command chooses which.
FROM python:3.11-slim AS build
WORKDIR /app
COPY requirements/app.txt requirements/app.txt
COPY requirements/build.txt requirements/build.txt
# What a package without a wheel is built with has hashes too, so nothing is fetched for its build.
RUN python -m venv /build \
    && /build/bin/pip install --no-cache-dir --require-hashes --no-deps --only-binary :all: -r requirements/build.txt \
    && /build/bin/pip wheel --no-cache-dir --require-hashes --no-deps --no-build-isolation -w /wheels -r requirements/app.txt
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --no-index --no-deps /wheels/*.whl

FROM python:3.11-slim
RUN groupadd --gid 10001 app && useradd --uid 10001 --gid app --create-home app \
    && install --directory --owner app --group app /lake /watcher
COPY --from=build /venv /venv
WORKDIR /app
COPY schemas schemas
COPY adapters adapters
COPY imaging imaging
COPY models models
COPY analytics analytics
COPY producers producers
COPY consumers consumers
COPY gateway gateway
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER app
EXPOSE 3000
CMD ["python", "-m", "gateway"]
