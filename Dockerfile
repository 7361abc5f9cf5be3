# The image of a student's server for JupyterHub, with the package and the course:
#   docker build -t etadlite-course .
#   docker run -p 8888:8888 etadlite-course
FROM quay.io/jupyter/minimal-notebook:python-3.12

COPY --chown=1000:100 pyproject.toml README.md LICENSE MANIFEST.in /tmp/etadlite/
COPY --chown=1000:100 etadlite /tmp/etadlite/etadlite
COPY --chown=1000:100 data_scripts /tmp/etadlite/data_scripts
COPY --chown=1000:100 notebooks /tmp/etadlite/notebooks
RUN pip install --no-cache-dir /tmp/etadlite && rm -rf /tmp/etadlite

# A hub mounts the student's own home folder when the server starts. So the notebooks are written
# then; files that the student has changed are kept.
USER root
RUN echo 'etadlite course "${HOME}/course"' > /usr/local/bin/before-notebook.d/50-course.sh
USER ${NB_UID}
