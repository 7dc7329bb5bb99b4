# syntax=docker/dockerfile:1
# NVIDIA's Triton with the libraries that the models' Python backend imports, and the models,
# rendered for one provider: cpu runs everywhere, cuda needs a GPU and has no fallback.
FROM python:3.11-slim AS render
WORKDIR /app
COPY requirements/app.txt requirements/app.txt
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements/app.txt
COPY schemas schemas
COPY adapters adapters
COPY imaging imaging
COPY models models
COPY triton_models triton_models
ARG PROVIDER=cpu
ARG IMAGE_INSTANCES=1
ARG TEXT_INSTANCES=1
RUN python -m models.repository triton_models /models \
    --provider "${PROVIDER}" \
    --image-instances "${IMAGE_INSTANCES}" \
    --text-instances "${TEXT_INSTANCES}"

FROM nvcr.io/nvidia/tritonserver:25.10-py3
COPY requirements/triton-gpu.txt /opt/requirements.txt
RUN pip install --no-cache-dir --break-system-packages --require-hashes --no-deps -r /opt/requirements.txt
COPY --from=render /models /models
EXPOSE 8000 8002
CMD ["tritonserver", "--model-repository=/models", "--model-control-mode=explicit", \
     "--load-model=lite_image", "--load-model=lite_text"]
