# Everything a reader needs: `make book` and `make test`. `make` alone lists the rest.
PYTHON ?= python3
PROFILE ?= cpu
PY = .venv/bin/python
STAMP = .venv/.made

.PHONY: help env book site site-smoke execute test serve gpu publish results repo clean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' Makefile

env: $(STAMP) ## make .venv with everything in it, at the tested versions

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed, $(PYTHON) is " \
	    + sys.version.split()[0] + "; name another one: make env PYTHON=python3.12")'
	@test -x $(PY) || { echo "making .venv (torch is large: some minutes)"; $(PYTHON) -m venv .venv; }
	$(PY) -m pip install --disable-pip-version-check -e '.[book,test]' -c constraints.txt
	@touch $(STAMP)

book: execute site ## render the data, execute the notebooks, build the site in _build/html
	@$(PY) book/check.py --profile $(PROFILE)
	@echo "look at it with: make serve$(if $(filter-out cpu,$(PROFILE)), PROFILE=$(PROFILE))"

execute: $(STAMP) ## execute the notebooks that changed (PROFILE=cpu, smoke or gpu)
	@$(PY) book/build.py execute --profile $(PROFILE)

site: $(STAMP) execute ## build the site from the executed notebooks, warnings being errors
	@$(PY) book/build.py site --profile $(PROFILE)

site-smoke: ## the whole site from notebooks executed in the smoke profile, and the check that it is whole
	@$(MAKE) --no-print-directory book PROFILE=smoke

test: $(STAMP) ## run the tests, and every notebook in the smoke profile
	@$(PY) -m pytest

serve: $(STAMP) ## show the site in a browser
	@$(PY) book/build.py serve --profile $(PROFILE)

gpu: ## execute the notebooks in the gpu profile: full training at 64x64
	@$(MAKE) --no-print-directory execute PROFILE=gpu

publish: $(STAMP) ## train the published models anew (hours; PROFILE=gpu with a GPU); draw the README's traversal
	@$(PY) -m mmvae.experiment publish --profile $(if $(filter gpu,$(PROFILE)),gpu,book) --jobs 2
	@$(PY) book/traversal.py

results: $(STAMP) ## run the grid of chapters 8 and 9 (days; goes on where it was stopped): make results HOURS=2
	@$(PY) -m mmvae.experiment results --jobs 2 $(if $(HOURS),--hours $(HOURS))

repo: ## set the repository's address everywhere: make repo URL=https://github.com/owner/name
	@$(PYTHON) book/repo.py $(URL)

clean: ## remove what was built, but not .venv
	rm -rf _build
