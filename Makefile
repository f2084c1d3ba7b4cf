# Everything a reader needs: `make book` and `make test`. `make` alone lists the rest.
PYTHON ?= python3
PROFILE ?= cpu
PY = .venv/bin/python
STAMP = .venv/.made
# Tools of the maintainers: uv, zizmor, check-jsonschema, in an environment of their own
TOOLS = _build/tools
UV = $(TOOLS)/bin/uv
# TORCH=cpu: PyTorch without CUDA's libraries, a tenth of the download
ifdef TORCH
INSTALL = $(UV) pip install --python $(PY) --torch-backend $(TORCH)
INSTALLER = $(TOOLS)/.made
else
INSTALL = $(PY) -m pip install --disable-pip-version-check
endif

.PHONY: help env book site site-smoke execute test serve gpu publish results repo clean
.PHONY: fuzz lab ci quick floors links lint dist tagged pages colab accessible
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' Makefile

env: $(STAMP) ## make .venv with everything in it, at the tested versions (TORCH=cpu: without CUDA)

# What an installation that was killed left half done is done again: a package is whole once its INSTALLER is written.
$(STAMP): pyproject.toml constraints.txt | $(INSTALLER)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed, $(PYTHON) is " \
	    + sys.version.split()[0] + "; name another one: make env PYTHON=python3.12")'
	@test -x $(PY) || { echo "making .venv (torch is large: some minutes)"; $(PYTHON) -m venv .venv; }
	@find .venv/lib -maxdepth 3 -name '*.dist-info' ! -exec test -e {}/INSTALLER ';' -prune -exec rm -r {} +
	@$(PY) -m ensurepip --default-pip >/dev/null
	$(INSTALL) -e '.[book,test]' -c constraints.txt
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

test: $(STAMP) ## run the tests, a file a core, and every notebook in the smoke profile
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile

fuzz: $(STAMP) ## damage files and command lines at random, 2,000 times each, and count what comes of it (EXAMPLES=100000)
	@MMVAE_FUZZ=$(or $(EXAMPLES),2000) $(PY) -m pytest -q -s tests/test_fuzz.py

serve: $(STAMP) ## show the site in a browser
	@$(PY) book/build.py serve --profile $(PROFILE)

lab: .venv/.lab ## open the notebooks in JupyterLab, which shows their formulas and boxes as the book does
	@.venv/bin/jupyter lab notebooks

.venv/.lab: $(STAMP)
	$(INSTALL) -e '.[lab]' -c constraints.txt
	@touch $@

gpu: ## execute the notebooks in the gpu profile: full training at 64x64
	@$(MAKE) --no-print-directory execute PROFILE=gpu

publish: $(STAMP) ## train the published models anew (hours; PROFILE=gpu with a GPU); draw the README's traversal
	@$(PY) -m mmvae.experiment publish --profile $(if $(filter gpu,$(PROFILE)),gpu,book) --jobs 2
	@$(PY) book/traversal.py

results: $(STAMP) ## run the grid of chapters 8 and 9 (days; goes on where it was stopped): make results HOURS=2
	@$(PY) -m mmvae.experiment results --jobs 2 $(if $(HOURS),--hours $(HOURS)) $(if $(DEVICE),--device $(DEVICE))

repo: ## set the repository's address everywhere: make repo URL=https://github.com/owner/name
	@$(PYTHON) book/repo.py $(URL)

clean: ## remove what was built, but not .venv
	rm -rf _build build dist

# ---- what the workflows in .github/workflows run: each step of theirs is one of these

ci: ## what is run on every change: the tests, every notebook, the whole site in the smoke profile
	@bash .ci/run

QUICK = tests/test_gaussian.py tests/test_models.py tests/test_rows.py tests/test_readme.py
quick: $(STAMP) ## some minutes of the tests: the models, the rows, the README's code
	@$(PY) -m pytest -q $(QUICK)

$(TOOLS)/.made: constraints.txt
	@$(PYTHON) -m venv --clear $(TOOLS)
	@$(TOOLS)/bin/python -m pip install -q --disable-pip-version-check uv zizmor check-jsonschema -c constraints.txt
	@touch $@

FLOORS = $(QUICK) tests/test_train.py tests/test_checkpoint.py tests/test_pairs.py tests/test_plot.py tests/test_widgets.py
floors: $(TOOLS)/.made ## the tests with the lowest versions that pyproject.toml allows
	@$(UV) venv -q --clear --python $(PYTHON) _build/floors
	@$(UV) pip install -q --python _build/floors/bin/python --resolution lowest-direct \
	    $(if $(TORCH),--torch-backend $(TORCH)) -r pyproject.toml --extra test
	@$(UV) pip install -q --python _build/floors/bin/python --no-deps -e .
	@_build/floors/bin/python -m pytest -q $(FLOORS)

lint: $(TOOLS)/.made ## the workflows: against their schema, and for what makes them unsafe
	@$(TOOLS)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(TOOLS)/bin/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	@$(TOOLS)/bin/check-jsonschema --builtin-schema vendor.github-issue-forms $(filter-out %config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	@$(TOOLS)/bin/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	@$(TOOLS)/bin/zizmor --offline --pedantic --no-progress .github

links: ## are the addresses outside, in every page, still there? (needs the network)
	@$(PYTHON) book/links.py

AXE = _build/axe/node_modules/axe-core/axe.min.js
$(AXE):
	@npm install --silent --prefix _build/axe axe-core

accessible: $(STAMP) $(AXE) ## every page of the built site under axe, in both themes, wide and on a phone (npm fetches axe)
	@$(PY) book/accessible.py --profile $(PROFILE)

dist: $(TOOLS)/.made ## wheel and source in dist/, installed in a bare environment, and a model asked there (TAG=v0.2.0: of that version)
	@$(PYTHON) book/release.py version $(TAG)
	@rm -rf build dist && $(UV) build -q --out-dir dist
	@$(UV) venv -q --clear --python $(PYTHON) _build/bare
	@$(UV) pip install -q --python _build/bare/bin/python $(if $(TORCH),--torch-backend $(TORCH)) dist/*.whl
	@_build/bare/bin/python -I book/release.py smoke
	@$(PYTHON) book/release.py notes > dist/NOTES.md

pdf: book ## the whole book as one PDF, printed by Chromium, in _build/pdf
	@$(PY) book/pdf.py --profile $(PROFILE)

tagged: ## is what is checked out the release of its version? Only that is published
	@$(PYTHON) book/release.py tagged

pages: pdf ## the site as it is published, in _build/pages, and its PDF
	@$(PY) book/build.py pages --profile $(PROFILE)

# One commit that stands alone: colab/ of _build/pages. The working tree and its index stay as they are.
REMOTE = origin
INDEX = GIT_INDEX_FILE=$(CURDIR)/_build/colab.index
AUTHOR = -c user.name=mmvae -c user.email=mmvae@users.noreply.github.com
colab: ## put the notebooks that Colab opens, of the site in _build/pages, on the branch gh-pages of REMOTE
	@test ! -f _build/artifact.tar || { mkdir -p _build/pages && tar -xf _build/artifact.tar -C _build/pages; }
	@test -d _build/pages/colab || { echo "_build/pages/colab: not there; make it with: make pages"; exit 1; }
	@rm -f _build/colab.index && $(INDEX) git --work-tree=_build/pages add -f colab
	@made=$$(git $(AUTHOR) commit-tree -m "The chapters as Colab opens them" $$($(INDEX) git write-tree)) && \
	    git push -q -f $(REMOTE) $$made:refs/heads/gh-pages && echo "colab: $$made on gh-pages"
