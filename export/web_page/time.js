// Time of a scene that moves: a slider, a button that plays, and the space bar. Where the page has no
// slider, time is 0 and stands still.

const PLAY_SECONDS = 4; // from time 0 to 1

class Clock {
  // `changed` is called when the time was changed by hand; `steps` times alone are shown, if given.
  constructor(changed, steps = 0) {
    this.slider = byId("time");
    this.steps = steps;
    this.running = 0; // goes on evenly, whatever steps are shown
    this.playing = false;
    if (!this.slider) return;
    if (steps > 1) this.slider.step = String(1 / (steps - 1));
    this.slider.addEventListener("input", () => {
      this.set(Number(this.slider.value));
      changed();
    });
    const wished = Number(wishes().get("time"));
    this.set(Number.isFinite(wished) ? wished : 0);
    this.setPlaying(wishes().has("play"));
  }

  // The time that is shown, 0 to 1.
  get time() {
    return this.steps > 1 ? this.step / (this.steps - 1) : this.running;
  }

  get step() {
    return Math.round(this.running * Math.max(this.steps - 1, 0));
  }

  set(time) {
    this.running = Math.max(0, Math.min(1, time));
    this.tell();
  }

  toggle() {
    if (this.slider) this.setPlaying(!this.playing);
  }

  setPlaying(on) {
    this.playing = on;
    const button = document.querySelector("[data-action=play]");
    button.setAttribute("aria-pressed", String(on));
    button.textContent = on ? "Pause" : "Play";
  }

  // Goes on by the seconds since the last frame; returns whether another time is shown.
  advance(seconds) {
    if (!this.playing) return false;
    const before = this.time;
    this.running = (this.running + seconds / PLAY_SECONDS) % 1;
    if (this.time !== before) this.tell();
    return this.time !== before;
  }

  tell() {
    this.slider.value = String(this.time);
    byId("clock").textContent = this.time.toFixed(2);
  }
}
